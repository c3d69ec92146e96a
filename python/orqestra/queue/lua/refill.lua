-- Refills a partial lane from what Postgres holds, in three phases: begin (before Postgres is read),
-- add (chunks), end. Between begin and end every push is added, so that nothing is left out meanwhile.
--
-- KEYS[1]  {ns}:epoch
-- ARGV[1]  prefix
-- ARGV[2]  lane, 8 hex digits
-- ARGV[3]  a name of this refill, no other's
-- ARGV[4]  phase: "begin", "add", "whole" (the end; Postgres held no more) or "more" (the end; it did)
-- ARGV[5]  hints to add, 25 bytes each, all of this lane
-- ARGV[6]  window: hints a lane holds at most
-- ARGV[7]  who refills, for the wake message
-- Returns  1, or 0 if the epoch is missing or the lane is no longer partial: stop

if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
local prefix, lane, phase, hints = ARGV[1], ARGV[2], ARGV[4], ARGV[5]
local partial, filling, ready = prefix .. 'partial', prefix .. 'filling:' .. lane, prefix .. 'ready:' .. lane
local generation = redis.call('HGET', partial, lane)
if not generation then
  return 0
end

if phase == 'begin' then
  -- Should the refilling server die, the lane is an ordinary partial one again after this.
  redis.call('SET', filling, ARGV[3] .. ' ' .. generation, 'PX', 5000)
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

if phase == 'whole' or phase == 'more' then
  local undisturbed = redis.call('GET', filling) == ARGV[3] .. ' ' .. generation
  if undisturbed then
    redis.call('DEL', filling)
  end
  -- What sorts behind the window has others before it that only Postgres knows, or will have.
  local cut = redis.call('ZREMRANGEBYRANK', ready, ARGV[6], -1)
  if phase == 'whole' and undisturbed and cut == 0 then
    redis.call('HDEL', partial, lane)
  end
end
return 1
