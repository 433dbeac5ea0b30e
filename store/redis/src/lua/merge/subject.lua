-- Merges a subject's list of sessions from another store: the union of both. A session that has ended is pruned later. A missing
-- one would not be found when all sessions of the subject are ended.
-- KEYS[1] the list; ARGV[1] milliseconds to live, then scores and members.
local keep = tonumber(ARGV[1])
local is_there = redis.call('EXISTS', KEYS[1]) == 1
for at = 2, #ARGV, 2 do
  redis.call('ZADD', KEYS[1], 'GT', ARGV[at], ARGV[at + 1])
end
prolong(KEYS[1], keep, is_there and redis.call('PTTL', KEYS[1]) or -2)
return 1
