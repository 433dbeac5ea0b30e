-- Brings a revocation or the mark of a token from another store, and weakens nothing that is there: what ends more stays,
-- and lives at least as long as either.
-- KEYS[1] the name; ARGV[1] milliseconds to live (-1: for ever), ARGV[2] the other's value, ARGV[3] the kind: 'r' a
-- revocation, 'j' a mark.
local function rank(value)
  if ARGV[3] == 'j' then
    return value == 'd' and 1 or 0
  end
  if string.sub(value, 1, 2) == 'D;' then
    return math.huge
  end
  -- Nonsense is more than nothing, since nobody may take it for "live".
  return tonumber(string.match(value, '^B(%d+);')) or -1
end
local old = redis.call('GET', KEYS[1])
local keep, value = tonumber(ARGV[1]), ARGV[2]
if old then
  if rank(old) >= rank(value) then
    value = old
  end
  keep = longer(keep, redis.call('PTTL', KEYS[1]))
end
set(KEYS[1], value, keep)
return 1
