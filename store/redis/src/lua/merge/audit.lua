-- Continues the audit log as in another store: same ids, same order. An entry that is there already changes nothing.
-- KEYS[1] the stream; ARGV[1] about how many entries it keeps at the most; ARGV[2] '1': an entry whose id is taken or passed
-- gets the next id, unless the log has the entry; '0': such an entry is left out; then ids and values.
for at = 3, #ARGV, 2 do
  local there = redis.call('XRANGE', KEYS[1], ARGV[at], ARGV[at])
  if not (there[1] and there[1][2][2] == ARGV[at + 1]) then
    local added = redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], ARGV[at], 'e', ARGV[at + 1])
    if type(added) == 'table' and added.err then
      if not string.find(added.err, 'equal or smaller', 1, true) then
        return added
      end
      local is_there = false
      if ARGV[2] == '1' then
        for _, entry in ipairs(redis.call('XREVRANGE', KEYS[1], '+', ARGV[at], 'COUNT', 1000)) do
          is_there = is_there or entry[2][2] == ARGV[at + 1]
        end
      end
      if ARGV[2] == '1' and not is_there then
        redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'e', ARGV[at + 1])
      end
    end
  end
end
return 1
