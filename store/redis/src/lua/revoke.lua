-- Writes one revocation without weakening an existing one: dead stays dead, a later `before` stays, and an expiry is
-- never shortened. KEYS[1] the name; ARGV[1] the encrypted note, ARGV[2] 'D' or 'B', ARGV[3] milliseconds to keep it
-- (-1: forever). For 'B': ARGV[4] our time when it was sent, ARGV[5] the tolerance for issuers' clocks, ARGV[6] the
-- most seconds that it can have been in flight. ARGV[7] the name of the mark for lag.rs, ARGV[8] its milliseconds.
-- `before` is computed here, so that tokens issued while it was queued are dead too. Returns the head of the current
-- entry, and its milliseconds to live (-1: forever).
local old = redis.call('GET', KEYS[1])
local keep = tonumber(ARGV[3])
local value, before
if ARGV[2] == 'D' then
  value = 'D;' .. ARGV[1]
else
  local now = tonumber(ARGV[4])
  local here = tonumber(redis.call('TIME')[1])
  now = math.max(now, math.min(here, now + tonumber(ARGV[6])))
  -- One more than now, since iat loses its fraction; and tokens signed now by an issuer with a fast clock count as
  -- issued before too.
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
set(KEYS[1], value, keep)
if not old then
  -- By pcall: a measurement must not make a revocation fail.
  local at = redis.call('TIME')
  redis.pcall('SET', ARGV[7], string.format('%.0f', at[1] * 1000000 + at[2]), 'PX', ARGV[8])
end
return {string.match(value, '^[^;]*;'), keep}
