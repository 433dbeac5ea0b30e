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
  local left = redis.call('PTTL', KEYS[1])
  if keep ~= -1 and (left == -1 or left > keep) then
    keep = left
  end
end
if keep == -1 then
  redis.call('SET', KEYS[1], value)
else
  redis.call('SET', KEYS[1], value, 'PX', keep)
end
return 1
