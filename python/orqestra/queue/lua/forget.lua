-- Removes hints of jobs that are cancelled: best effort, a claim refuses them anyway.
--
-- KEYS[1]  {ns}:epoch
-- ARGV[1]  prefix
-- ARGV[2]  hints, 25 bytes each
-- Returns  the number removed

local removed, hints = 0, ARGV[2]
for i = 1, #hints, 25 do
  local hint = string.sub(hints, i, i + 24)
  removed = removed + redis.call('ZREM', ARGV[1] .. 'ready:' .. string.sub(hint, 1, 8), string.sub(hint, 10))
  removed = removed + redis.call('ZREM', ARGV[1] .. 'delayed', hint)
end
return removed
