-- Removes one revocation. KEYS as in log.lua. Returns how many there were.
local removed = redis.call('DEL', KEYS[1])
if removed == 1 then
  append('L', -1)
end
return removed
