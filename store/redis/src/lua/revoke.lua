-- Writes one revocation without weakening the one that may be there: dead stays dead, a later `before` stays, and the entry
-- lives at least as long as before.
-- KEYS as in log.lua; ARGV[1] the encrypted note, ARGV[2] 'D' or 'B', ARGV[3] milliseconds to live (-1: no expiry).
-- For 'B': ARGV[4] the sender's time, ARGV[5] how far issuers' clocks may run ahead, ARGV[6] the most seconds that the command
-- can have been on its way. ARGV[7] the name of the mark for lag.rs, ARGV[8] its milliseconds to live.
-- `before` is made here, so that a token which was issued while the command waited is dead too.
-- Returns the head of the entry that is in force now, and its milliseconds to live (-1: no expiry).
local old = redis.call('GET', KEYS[1])
local keep = tonumber(ARGV[3])
local value, before
if ARGV[2] == 'D' then
  value = 'D;' .. ARGV[1]
else
  local now = tonumber(ARGV[4])
  local here = tonumber(redis.call('TIME')[1])
  now = math.max(now, math.min(here, now + tonumber(ARGV[6])))
  -- One more than now, since iat loses its fraction. A token that an issuer with a fast clock signs now is revoked too.
  before = now + 1 + tonumber(ARGV[5])
  value = string.format('B%.0f;', before) .. ARGV[1]
end
if old then
  local was = string.match(old, '^B(%d+);')
  if before and (string.sub(old, 1, 2) == 'D;' or (was and tonumber(was) > before)) then
    value = old
  end
  keep = longer(keep, redis.call('PTTL', KEYS[1]))
end
append('R', keep)
set(KEYS[1], value, keep)
if not old then
  -- By pcall: a revocation must not fail because its lag cannot be measured.
  local at = redis.call('TIME')
  redis.pcall('SET', ARGV[7], string.format('%.0f', at[1] * 1000000 + at[2]), 'PX', ARGV[8])
end
return {string.match(value, '^[^;]*;'), keep}
