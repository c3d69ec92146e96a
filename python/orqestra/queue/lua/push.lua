-- Adds hints to their lanes. Idempotent: a hint that is there already changes nothing.
--
-- The keys are described in take.lua.
-- KEYS[1]  {ns}:epoch
-- ARGV[1]  prefix "{ns}:"
-- ARGV[2]  window: hints a lane holds at most
-- ARGV[3]  horizon: delayed hints due later than this (Unix ms) are left to Postgres
-- ARGV[4]  generation: a random number, the mark of a lane that becomes partial here
-- ARGV[5]  ready hints, 25 bytes each (lane 8 hex, score 1 digit, id 16 hex), grouped by lane
-- ARGV[6]  delayed hints, 38 bytes each (due 13 digits, then the hint)
-- ARGV[7]  who pushes: stands before the lanes in the wake message
-- ARGV[8]  how many delayed hints Redis holds at most: those that are due soonest
-- Returns  1, or 0 if the epoch is missing: nothing was done, all lanes must be marked first

if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end

local prefix, window, horizon, generation = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local ready, delayed = ARGV[5], ARGV[6]
local partial = prefix .. 'partial'

-- The worst hint that a partial lane holds ("score" .. "id"), or '' if it holds none. Whatever sorts
-- behind it has others before it that only Postgres knows, and is left to the refill. No edge (nil)
-- in a lane that is whole, or that is being refilled right now.
local function edge(lane, key)
  if redis.call('HEXISTS', partial, lane) == 0 or redis.call('EXISTS', prefix .. 'filling:' .. lane) == 1 then
    return nil
  end
  local worst = redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')
  return worst[1] and (worst[2] .. worst[1]) or ''
end

local function add(lane, hints)
  local key = prefix .. 'ready:' .. lane
  local worst = edge(lane, key)
  local args, left_out = {}, false
  for i = 1, #hints do
    local hint = hints[i]
    if worst == nil or hint < worst then
      args[#args + 1] = string.sub(hint, 1, 1)
      args[#args + 1] = string.sub(hint, 2)
    else
      left_out = true
    end
  end
  if #args > 0 then
    redis.call('ZADD', key, unpack(args))
    if redis.call('ZCARD', key) > window then
      redis.call('ZREMRANGEBYRANK', key, window, -1)
      left_out = true
    end
  end
  if left_out then
    redis.call('HSET', partial, lane, generation)
  end
end

local woken, at = {}, 1
while at <= #ready do
  local lane, hints = string.sub(ready, at, at + 7), {}
  while string.sub(ready, at, at + 7) == lane do
    hints[#hints + 1] = string.sub(ready, at + 8, at + 24)
    at = at + 25
  end
  add(lane, hints)
  woken[#woken + 1] = tonumber(lane, 16)
end

local later = {}
for i = 1, #delayed, 38 do
  local due = string.sub(delayed, i, i + 12)
  if tonumber(due) <= horizon then
    later[#later + 1] = due
    later[#later + 1] = string.sub(delayed, i + 13, i + 37)
  end
end
if #later > 0 then
  redis.call('ZADD', prefix .. 'delayed', unpack(later))
  redis.call('ZREMRANGEBYRANK', prefix .. 'delayed', ARGV[8], -1)
end

if #woken > 0 then
  redis.call('PUBLISH', prefix .. 'wake', ARGV[7] .. ' ' .. table.concat(woken, ','))
elseif #later > 0 then
  redis.call('PUBLISH', prefix .. 'wake', ARGV[7] .. ' ')
end
return 1
