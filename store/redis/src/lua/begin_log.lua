-- Begins the log of a bucket that has none. KEYS as in log.lua.
local head = redis.pcall('GET', KEYS[2])
if type(head) ~= 'string' or not string.find(head, '^%d+:' .. string.rep('%x', 16) .. '$') then
  append('N', -1)
end
return 1
