-- Merges a revocation or the mark of a token from another store: the stronger one stays, and lives as long as the longer one.
-- KEYS[1] the name, for a revocation the others of log.lua too; ARGV[1] milliseconds to live (-1: no expiry), ARGV[2] the other store's value, ARGV[3] the kind: 'r' a
-- revocation, 'j' a mark. ARGV[4], if it is there: write nothing where the entry is not stronger and would live for at most so
-- many milliseconds longer.
-- Returns how many were written.
local function rank(value)
  if ARGV[3] == 'j' then
    return value == 'd' and 1 or 0
  end
  if string.sub(value, 1, 2) == 'D;' then
    return math.huge
  end
  -- A value that is not ours is higher than no entry, since it must not be taken for "live".
  return tonumber(string.match(value, '^B(%d+);')) or -1
end
local old = redis.call('GET', KEYS[1])
local keep, value = tonumber(ARGV[1]), ARGV[2]
if old then
  local left, slack = redis.call('PTTL', KEYS[1]), tonumber(ARGV[4] or '')
  if rank(old) >= rank(value) then
    if slack and (left == -1 or (keep ~= -1 and left + slack >= keep)) then
      return 0
    end
    value = old
  end
  keep = longer(keep, left)
end
if ARGV[3] == 'r' then
  append('R', keep)
end
set(KEYS[1], value, keep)
return 1
