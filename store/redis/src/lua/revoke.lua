-- Writes one revocation without weakening the one that may be there: dead stays dead, a later `before` stays, and the
-- entry lives at least as long as it would have.
-- KEYS[1] the name; ARGV[1] the sealed note, ARGV[2] 'D' or 'B', ARGV[3] milliseconds to keep it (-1: for ever).
-- For 'B': ARGV[4] our time when it was sent, ARGV[5] the lead of issuers' clocks, ARGV[6] the most seconds that it can
-- have been under way. ARGV[7] the name of the mark for lag.rs, ARGV[8] its milliseconds. `before` is made here, so that what was issued while it waited is dead too.
-- Returns the head of what is there now, and its milliseconds to live (-1: for ever).
local old = redis.call('GET', KEYS[1])
local keep = tonumber(ARGV[3])
local value, before
if ARGV[2] == 'D' then
  value = 'D;' .. ARGV[1]
else
  local now = tonumber(ARGV[4])
  local here = tonumber(redis.call('TIME')[1])
  now = math.max(now, math.min(here, now + tonumber(ARGV[6])))
  -- One more than now, since iat loses its fraction; and what an issuer with a fast clock signs now counts as issued
  -- before too.
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
  -- By pcall: a revocation does not fail for what only measures it.
  local at = redis.call('TIME')
  redis.pcall('SET', ARGV[7], string.format('%.0f', at[1] * 1000000 + at[2]), 'PX', ARGV[8])
end
return {string.match(value, '^[^;]*;'), keep}
