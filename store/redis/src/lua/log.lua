-- The log of a bucket's revocations. This is put before the scripts that change a revocation.
-- KEYS[1] the revocation (any name of the bucket for 'N'), KEYS[2] the head, KEYS[3] the log.
-- They are all KEYS: while a slot migrates, a script is refused if one of them has moved, instead of failing half done.
local MAX_ENTRIES = 1024
-- kind: 'R' revoked, 'L' lifted, 'N' the log begins; keep: milliseconds to live (-1: no expiry).
local function append(kind, keep)
  -- By pcall: a revocation must not fail because of what another client wrote here.
  local head = redis.pcall('GET', KEYS[2])
  if type(head) ~= 'string' then
    head = ''
  end
  local at = redis.call('TIME')
  local sequence = (tonumber(string.match(head, '^(%d+):')) or 0) + 1
  local left = string.format('%.0f', keep)
  -- The time makes it differ where the same was written after another past.
  local seed = table.concat({head, kind, KEYS[1], left, at[1], at[2]}, ' ')
  local chain = string.sub(redis.sha1hex(seed), 1, 16)
  local id = string.format('%.0f', sequence)
  local entry = table.concat({kind, chain, left, string.match(KEYS[1], ':r:(.*)$') or ''}, ';')
  local added = redis.pcall('XADD', KEYS[3], 'MAXLEN', '~', MAX_ENTRIES, id, 'e', entry)
  if type(added) == 'table' and added.err and string.find(added.err, 'OOM', 1, true) then
    -- Nothing is written yet, so the whole script can be refused. After any write Redis would let the rest exceed its limit.
    redis.call('XADD', KEYS[3], id, 'e', entry)
  elseif type(added) == 'table' and added.err then
    -- What is there is not the log of this head, or the user may not write streams. Readers of the log notice that the entry
    -- is not there, and read the bucket anew.
    redis.call('DEL', KEYS[3])
    redis.pcall('XADD', KEYS[3], id, 'e', entry)
  end
  redis.call('SET', KEYS[2], id .. ':' .. chain)
end
