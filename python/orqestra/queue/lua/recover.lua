-- Pushes back what was taken by a server that did not say it was done in time: it died, or its reply was lost.
-- A hint that was claimed meanwhile is only stale.
--
-- KEYS[1]  {ns}:epoch
-- ARGV[1]  prefix
-- ARGV[2]  age in ms, by the TIME of Redis, after which a take counts as forgotten
-- ARGV[3]  who recovers, for the wake message
-- Returns  the number of hints pushed back

if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
local prefix = ARGV[1]
local processing = prefix .. 'processing'
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local count, woken = 0, {}
local all = redis.call('HGETALL', processing)
for i = 1, #all, 2 do
  local taken, hints = string.match(all[i + 1], '^(%d+)|(.*)$')
  if now - tonumber(taken) > tonumber(ARGV[2]) then
    hints = string.gsub(hints, '|', '')
    for at = 1, #hints, 25 do
      local lane = string.sub(hints, at, at + 7)
      redis.call('ZADD', prefix .. 'ready:' .. lane, string.sub(hints, at + 8, at + 8), string.sub(hints, at + 9, at + 24))
      woken[tonumber(lane, 16)] = true
      count = count + 1
    end
    redis.call('HDEL', processing, all[i])
  end
end
local lanes = {}
for lane in pairs(woken) do
  lanes[#lanes + 1] = lane
end
if #lanes > 0 then
  redis.call('PUBLISH', prefix .. 'wake', ARGV[3] .. ' ' .. table.concat(lanes, ','))
end
return count
