-- Refills a partial lane from what Postgres holds, in three phases: begin (before Postgres is read),
-- add (chunks), end. Between begin and end every push is added, so that nothing is left out meanwhile.
-- One at a time: of two refills of a lane neither would end undisturbed, again and again.
--
-- KEYS[1]  {ns}:epoch
-- ARGV[1]  prefix
-- ARGV[2]  lane, 8 hex digits
-- ARGV[3]  a name of this refill, no other's
-- ARGV[4]  phase: "begin", "add", "whole" (the end; Postgres held no more) or "more" (the end; it did)
-- ARGV[5]  hints to add, 25 bytes each, all of this lane
-- ARGV[6]  window: hints a lane holds at most
-- ARGV[7]  who refills, for the wake message
-- ARGV[8]  lifetime in ms of the announcement; each chunk prolongs it
-- ARGV[9]  generation: a random number, the new mark of a lane whose other refill this one spoils
-- Returns  1, or 0 if the epoch is missing, the lane is no longer partial, or it is being refilled: stop

if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
local prefix, lane, phase, hints = ARGV[1], ARGV[2], ARGV[4], ARGV[5]
local partial, filling, ready = prefix .. 'partial', prefix .. 'filling:' .. lane, prefix .. 'ready:' .. lane
local generation = redis.call('HGET', partial, lane)
if not generation then
  return 0
end

local mine = ARGV[3] .. ' ' .. generation
local announced = redis.call('GET', filling)

if phase == 'begin' then
  -- One of an older mark reads what was there before that mark: it does not count.
  if announced and announced ~= mine and string.match(announced, ' (.*)$') == generation then
    return 0
  end
  -- Should the refilling server die, the lane is an ordinary partial one again after this.
  redis.call('SET', filling, mine, 'PX', ARGV[8])
  return 1
end

local args = {}
for i = 1, #hints, 25 do
  args[#args + 1] = string.sub(hints, i + 8, i + 8)
  args[#args + 1] = string.sub(hints, i + 9, i + 24)
end
if #args > 0 then
  redis.call('ZADD', ready, unpack(args))
  redis.call('PUBLISH', prefix .. 'wake', ARGV[7] .. ' ' .. tonumber(lane, 16))
end

local undisturbed = announced == mine
if phase == 'add' and undisturbed then
  redis.call('PEXPIRE', filling, ARGV[8])
end

if phase == 'whole' or phase == 'more' then
  if undisturbed then
    redis.call('DEL', filling)
  end
  -- What sorts behind the window has others before it that only Postgres knows, or will have.
  local cut = redis.call('ZREMRANGEBYRANK', ready, ARGV[6], -1)
  if phase == 'whole' and undisturbed and cut == 0 then
    redis.call('HDEL', partial, lane)
  elseif cut > 0 and not undisturbed then
    -- What was cut may be what another refill has added and counts on.
    redis.call('HSET', partial, lane, ARGV[9])
  end
end
return 1
