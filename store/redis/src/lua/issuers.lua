-- Adds issuers, and removes the oldest.
-- KEYS[1] the set; ARGV: [1] now, [2] seconds that each is kept, [3] the most entries, then kinds and issuers.
local now, kept, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
for index = 4, #ARGV do
    redis.call('ZADD', KEYS[1], 'GT', now, ARGV[index])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. (now - kept))
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -(most + 1))
redis.call('EXPIRE', KEYS[1], kept)
return redis.status_reply('OK')
