-- Heals what was lost all the same: of the hints that a lane should have, adds those that it has not.
-- One that comes in here although its job has just been claimed is stale, and a claim refuses it.
--
-- KEYS[1]  {ns}:epoch
-- ARGV[1]  prefix
-- ARGV[2]  lane, 8 hex digits
-- ARGV[3]  the best hints that it should have, 25 bytes each
-- ARGV[4]  if more than this many are missing, the lane is marked partial instead
-- ARGV[5]  generation for that mark, a random number
-- ARGV[6]  who audits, for the wake message
-- Returns  how many were missing

local prefix, lane, hints = ARGV[1], ARGV[2], ARGV[3]
if redis.call('EXISTS', KEYS[1]) == 0 or redis.call('HEXISTS', prefix .. 'partial', lane) == 1 then
  return 0 -- a refill brings all of it
end

local taken
local function is_taken(hint)
  if not taken then
    taken = table.concat(redis.call('HVALS', prefix .. 'processing'), '|')
  end
  return string.find(taken, hint, 1, true) ~= nil
end

local ready = prefix .. 'ready:' .. lane
local args = {}
for i = 1, #hints, 25 do
  local hint = string.sub(hints, i, i + 24)
  local id = string.sub(hint, 10)
  if not redis.call('ZSCORE', ready, id) and not redis.call('ZSCORE', prefix .. 'delayed', hint)
      and not is_taken(hint) then
    args[#args + 1] = string.sub(hint, 9, 9)
    args[#args + 1] = id
  end
end

local missing = #args / 2
if missing > tonumber(ARGV[4]) then
  redis.call('HSET', prefix .. 'partial', lane, ARGV[5])
elseif missing > 0 then
  redis.call('ZADD', ready, unpack(args))
end
if missing > 0 then
  redis.call('PUBLISH', prefix .. 'wake', ARGV[6] .. ' ' .. tonumber(lane, 16))
end
return missing
