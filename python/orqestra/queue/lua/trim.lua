-- Cuts lanes down to the window, which shrinks as more lanes come up; what is cut is left to Postgres.
--
-- KEYS[1]  {ns}:epoch
-- ARGV[1]  prefix
-- ARGV[2]  window: hints a lane holds at most
-- ARGV[3]  generation: a random number, the mark of a lane that becomes partial here
-- ARGV[4]  lanes, 8 hex digits each
-- Returns  the number of hints cut

if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
local cut, lanes = 0, ARGV[4]
for i = 1, #lanes, 8 do
  local lane = string.sub(lanes, i, i + 7)
  local removed = redis.call('ZREMRANGEBYRANK', ARGV[1] .. 'ready:' .. lane, ARGV[2], -1)
  if removed > 0 then
    redis.call('HSET', ARGV[1] .. 'partial', lane, ARGV[3])
    cut = cut + removed
  end
end
return cut
