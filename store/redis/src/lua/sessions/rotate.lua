-- Replaces the refresh token, if the presented one is the current one. All of it or nothing.
-- KEYS[1] the session; ARGV: [1] MAC of the presented token, [2] of the new one, [3] record of the new access token or
-- '', [4] milliseconds of grace, [5] the most bytes of access records.
-- 'rotated', or why not: 'gone', 'ended', 'raced' (it was replaced a moment ago), 'reused' (it was replaced before that;
-- the session is ended by this very command).
local s = redis.call('HMGET', KEYS[1], 'r', 'p', 't', 'x', 'e', 'i', 'a', 'n')
if s[4] then
  return 'ended'
end
if not s[1] then
  return 'gone'
end
local at = redis.call('TIME')
local now = at[1] * 1000 + math.floor(at[2] / 1000)
if s[1] == ARGV[1] then
  local left = tonumber(s[5]) - now
  if left <= 0 then
    return 'gone'
  end
  local stamp = string.format('%.0f', now)
  local count = string.format('%.0f', (tonumber(s[8] or 0) or 0) + 1)
  redis.call('HSET', KEYS[1], 'r', ARGV[2], 'p', s[1], 't', stamp, 'u', stamp, 'n', count)
  if ARGV[3] ~= '' then
    redis.call('HSET', KEYS[1], 'a', string.sub(ARGV[3] .. (s[7] or ''), 1, tonumber(ARGV[5])))
  end
  local idle = tonumber(s[6])
  if idle > 0 and idle < left then
    left = idle
  end
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', left))
  return 'rotated'
end
-- After a failover the clock may differ, so the distance counts and not the direction.
if s[2] == ARGV[1] and math.abs(now - tonumber(s[3])) <= tonumber(ARGV[4]) then
  return 'raced'
end
redis.call('HSET', KEYS[1], 'x', 'reused')
return 'reused'
