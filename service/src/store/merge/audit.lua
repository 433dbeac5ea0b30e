-- Goes on with the audit stream where another store's does: same ids, same order. Who brings what is there already changes
-- nothing.
-- KEYS[1] the stream; ARGV[1] about how many entries it keeps at the most, ARGV[2] '1': an entry whose place is taken or
-- passed gets the next id, or '0': it is there already; then ids and values.
for at = 3, #ARGV, 2 do
  local there = redis.call('XRANGE', KEYS[1], ARGV[at], ARGV[at])
  if not (there[1] and there[1][2][2] == ARGV[at + 1]) then
    local added = redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], ARGV[at], 'e', ARGV[at + 1])
    if type(added) == 'table' and added.err then
      if not string.find(added.err, 'equal or smaller', 1, true) then
        return added
      end
      if ARGV[2] == '1' then
        redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'e', ARGV[at + 1])
      end
    end
  end
end
return 1
