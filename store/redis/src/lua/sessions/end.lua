-- Marks a session as ended, if it is there. KEYS[1] the session; ARGV[1] why.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
redis.call('HSET', KEYS[1], 'x', ARGV[1])
return 1
