-- Takes hints for the workers of one server, and remembers what it gave until it is told it is done.
--
-- The keys, all in one slot of a cluster by the hash tag in their prefix "{ns}:":
--   epoch            string. If it is missing this Redis is not the one we filled.
--   ready:<lane>     ZSET. score = 9 - priority, member = id as 16 hex digits: best priority, oldest first.
--   delayed          ZSET. score = due time in ms, member = hint (lane 8 hex, score 1 digit, id 16 hex).
--   processing       HASH. "<server>:<number of take>" -> "<ms of TIME>|<hints of profile 1>|<of profile 2> ..."
--   partial          HASH. lane (8 hex) -> generation: Postgres holds more of this lane than Redis.
--   filling:<lane>   string with a lifetime: "<name> <generation>" of the refill of a partial lane, one at a time.
--   audit            string with a lifetime: which server audits in this second.
-- Channels: wake "<server> <lanes>", cancel "<ids>", changed "<ids>".
--
-- KEYS[1]  {ns}:epoch
-- ARGV[1]  prefix
-- ARGV[2]  field of this take in `processing`; the same field asked again gets the same hints
-- ARGV[3]  now: the server's estimate of Postgres' clock, Unix ms
-- ARGV[4]  fields that are done, separated by spaces
-- ARGV[5]  a partial lane with fewer hints than this is reported, to be refilled
-- ARGV[6]  promote at most this many due hints
-- then for each profile: a budget, and its lanes in fair order: "12,15;7" (queues by ';', lanes by ',')
-- Returns  {0} if the epoch is missing, else
--          {1, next due ms or -1, promoted lanes "8,9", empty lanes "12,15",
--           partial lanes "<lane> <generation>,...", hints of profile 1, hints of profile 2, ...}

if redis.call('EXISTS', KEYS[1]) == 0 then
  return {0}
end

local prefix, field, now = ARGV[1], ARGV[2], tonumber(ARGV[3])
local processing, delayed = prefix .. 'processing', prefix .. 'delayed'

for done in string.gmatch(ARGV[4], '%S+') do
  redis.call('HDEL', processing, done)
end

local promoted = {}
local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, tonumber(ARGV[6]))
for i = 1, #due do
  local hint = due[i]
  redis.call('ZADD', prefix .. 'ready:' .. string.sub(hint, 1, 8), string.sub(hint, 9, 9), string.sub(hint, 10))
  promoted[tonumber(string.sub(hint, 1, 8), 16)] = true
end
if #due > 0 then
  redis.call('ZREM', delayed, unpack(due))
end
local first = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')

local empty, partial = {}, {}

local function note(lane, hex, key)
  local left = redis.call('ZCARD', key)
  if left == 0 then
    empty[lane] = true
  end
  if left < tonumber(ARGV[5]) then
    local generation = redis.call('HGET', prefix .. 'partial', hex)
    if generation then
      partial[lane] = generation
    end
  end
end

local function head(lane)
  local best = redis.call('ZRANGE', lane.key, 0, 0, 'WITHSCORES')
  lane.head = best[1] and (best[2] .. best[1]) or nil
end

-- One queue: all its lanes as one line, the best priority first.
local function open_queue(text)
  local queue = {}
  for number in string.gmatch(text, '[^,]+') do
    local hex = string.format('%08x', tonumber(number))
    local lane = {number = tonumber(number), hex = hex, key = prefix .. 'ready:' .. hex}
    head(lane)
    queue[#queue + 1] = lane
  end
  return queue
end

-- The best lane of a queue; of equals in priority the earlier named one, whose turn it is.
local function best_lane(queue)
  local best
  for i = 1, #queue do
    local lane = queue[i]
    if lane.head and (not best or string.sub(lane.head, 1, 1) < string.sub(best.head, 1, 1)) then
      best = lane
    end
  end
  return best
end

local function pop(lane, count, into)
  local popped = redis.call('ZPOPMIN', lane.key, count)
  for i = 1, #popped, 2 do
    into[#into + 1] = lane.hex .. popped[i + 1] .. popped[i]
  end
  return #popped / 2
end

-- Goes round the queues, one hint each; the last queue that has anything is emptied in one call.
local function fill(budget, queues)
  local hints = {}
  while budget > 0 and #queues > 0 do
    for i = #queues, 1, -1 do
      if not best_lane(queues[i]) then
        table.remove(queues, i)
      end
    end
    if #queues == 1 and #queues[1] == 1 then
      pop(queues[1][1], budget, hints)
      budget = 0
    else
      for i = 1, #queues do
        local lane = best_lane(queues[i])
        if lane and budget > 0 then
          budget = budget - pop(lane, 1, hints)
          head(lane)
        end
      end
    end
  end
  return table.concat(hints)
end

local function give()
  local given = {}
  for i = 7, #ARGV, 2 do
    local queues, all = {}, {}
    for text in string.gmatch(ARGV[i + 1], '[^;]+') do
      local queue = open_queue(text)
      queues[#queues + 1] = queue
      for j = 1, #queue do
        all[#all + 1] = queue[j]
      end
    end
    given[#given + 1] = fill(tonumber(ARGV[i]), queues)
    for j = 1, #all do
      note(all[j].number, all[j].hex, all[j].key)
    end
  end
  return given
end

local function again(kept)
  local given, at = {}, 0
  for part in string.gmatch(kept .. '|', '([^|]*)|') do
    if at > 0 then
      given[#given + 1] = part
    end
    at = at + 1
  end
  return given
end

local kept = redis.call('HGET', processing, field)
local given
if kept then
  given = again(kept)
else
  given = give()
  local all = table.concat(given, '|')
  if string.find(all, '%x') then
    local time = redis.call('TIME')
    local ms = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
    redis.call('HSET', processing, field, ms .. '|' .. all)
  end
end

local function names(set, with_value)
  local list = {}
  for name, value in pairs(set) do
    list[#list + 1] = with_value and (name .. ' ' .. value) or name
  end
  return table.concat(list, ',')
end

local promoted_names = names(promoted, false)
if promoted_names ~= '' then
  redis.call('PUBLISH', prefix .. 'wake', string.match(field, '^[^:]*') .. ' ' .. promoted_names)
end
return {1, first[2] or '-1', promoted_names, names(empty, false), names(partial, true), unpack(given)}
