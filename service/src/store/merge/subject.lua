-- Brings a subject's list of sessions from another store: both lists together. One that is named there and ended is pruned
-- some day; one that was missing could not be found by who ends all of them.
-- KEYS[1] the list; ARGV[1] milliseconds to live, then scores and members.
local keep = tonumber(ARGV[1])
local is_there = redis.call('EXISTS', KEYS[1]) == 1
for at = 2, #ARGV, 2 do
  redis.call('ZADD', KEYS[1], 'GT', ARGV[at], ARGV[at + 1])
end
local left = is_there and redis.call('PTTL', KEYS[1]) or -2
if keep ~= -1 and left ~= -1 and left < keep then
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', keep))
end
return 1
