-- Replaces the record of a session if it is still the one that was read.
-- KEYS[1] the record; ARGV: [1] the new record, [2] milliseconds that it is kept, [3] 1 if there was one, [4] that one.
local stored = redis.call('GET', KEYS[1])
if (ARGV[3] == '1' and stored ~= ARGV[4]) or (ARGV[3] == '0' and stored) then
    return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
