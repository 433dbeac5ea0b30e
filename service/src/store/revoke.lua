-- Writes one revocation without weakening the one that may be there: dead stays dead, a later `before` stays, and the
-- entry lives at least as long as it would have.
-- KEYS[1] the name; ARGV[1] the value, ARGV[2] 'D' or its `before`, ARGV[3] milliseconds to keep it (-1: for ever).
-- Returns the head of what is there now, and its milliseconds to live (-1: for ever).
local old = redis.call('GET', KEYS[1])
local value, keep = ARGV[1], tonumber(ARGV[3])
if old then
  local before = string.match(old, '^B(%d+);')
  if ARGV[2] ~= 'D' then
    if string.sub(old, 1, 2) == 'D;' or (before and tonumber(before) > tonumber(ARGV[2])) then
      value = old
    end
  end
  local left = redis.call('PTTL', KEYS[1])
  -- An endless life is the longest, on either side.
  if keep ~= -1 and (left == -1 or left > keep) then
    keep = left
  end
end
if keep == -1 then
  redis.call('SET', KEYS[1], value)
else
  redis.call('SET', KEYS[1], value, 'PX', keep)
end
return {string.match(value, '^[^;]*;'), keep}
