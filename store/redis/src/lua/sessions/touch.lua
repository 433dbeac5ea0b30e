-- Notes a use of a session, at most once in a step, and extends its idle timeout.
-- KEYS[1] the session; ARGV[1] a step in milliseconds.
local s = redis.call('HMGET', KEYS[1], 'u', 'e', 'i', 'x')
if not s[2] or s[4] then
  return 0
end
local at = redis.call('TIME')
local now = at[1] * 1000 + math.floor(at[2] / 1000)
if math.abs(now - tonumber(s[1])) < tonumber(ARGV[1]) then
  return 0
end
local left, idle = tonumber(s[2]) - now, tonumber(s[3])
if idle > 0 and idle < left then
  left = idle
end
redis.call('HSET', KEYS[1], 'u', string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', left))
return 1
