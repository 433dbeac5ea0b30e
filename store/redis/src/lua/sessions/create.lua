-- Creates a session, if there is none.
-- KEYS[1] its name; ARGV: [1] sealed data, [2] access records, [3] MAC of the refresh token or '', [4] its
-- lifetime in milliseconds, [5] its idle timeout in milliseconds (0: none).
local at = redis.call('TIME')
local now = at[1] * 1000 + math.floor(at[2] / 1000)
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
redis.call('HSET', KEYS[1], 'd', ARGV[1], 'a', ARGV[2], 'u', string.format('%.0f', now),
  'e', string.format('%.0f', now + ARGV[4]), 'i', ARGV[5])
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[1], 'r', ARGV[3])
end
local life, idle = tonumber(ARGV[4]), tonumber(ARGV[5])
if idle > 0 and idle < life then
  life = idle
end
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', life))
return 1
