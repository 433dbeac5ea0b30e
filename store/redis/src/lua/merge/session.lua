-- Merges a session from another store. An ended session stays ended. Of two states of its tokens the one after more refreshes
-- stays.
-- KEYS[1] the session; ARGV[1] milliseconds to live, then names and values of its fields.
local new = {}
for at = 2, #ARGV, 2 do
  new[ARGV[at]] = ARGV[at + 1]
end
local function number(text)
  return tonumber(text or 0) or 0
end
local is_there = redis.call('EXISTS', KEYS[1]) == 1
local keep = tonumber(ARGV[1])
if is_there then
  local old = redis.call('HMGET', KEYS[1], 'n', 't', 'x', 'u')
  local was, is = number(old[1]), number(new.n)
  if was > is or (was == is and number(old[2]) > number(new.t)) then
    for _, field in ipairs({'n', 'r', 'p', 't', 'a'}) do
      new[field] = nil
    end
  end
  if old[3] then
    new.x = nil
  end
  if number(old[4]) > number(new.u) then
    new.u = nil
  end
end
for field, value in pairs(new) do
  redis.call('HSET', KEYS[1], field, value)
end
prolong(KEYS[1], keep, is_there and redis.call('PTTL', KEYS[1]) or -2)
return 1
