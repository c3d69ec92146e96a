-- Marks lanes partial: Redis may lack some of what Postgres holds. Also the whole of a rebuild: all
-- lanes are marked and the epoch is set, and refills do the rest.
--
-- KEYS[1]  {ns}:epoch
-- ARGV[1]  prefix
-- ARGV[2]  generation, a random number, new at each call
-- ARGV[3]  "1" sets the epoch (all lanes are named); "0" leaves it as it is
-- ARGV[4]  lanes, 8 hex digits each
-- Returns  1

local lanes = ARGV[4]
for i = 1, #lanes, 8 do
  redis.call('HSET', ARGV[1] .. 'partial', string.sub(lanes, i, i + 7), ARGV[2])
end
if ARGV[3] == '1' then
  redis.call('SET', KEYS[1], ARGV[2])
end
return 1
