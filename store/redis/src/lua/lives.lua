-- Times to live of merged entries: the longer of the two. This is put before the scripts that merge. In milliseconds; -1: no
-- expiry, -2: nothing is there.
local function longer(keep, left)
  -- No expiry is the longest, on either side.
  if keep ~= -1 and (left == -1 or left > keep) then
    return left
  end
  return keep
end
local function set(name, value, keep)
  if keep == -1 then
    redis.call('SET', name, value)
  else
    redis.call('SET', name, value, 'PX', keep)
  end
end
-- `left`: the time that it has left, or -2 if it was absent before the change.
local function prolong(name, keep, left)
  if keep ~= -1 and left ~= -1 and left < keep then
    redis.call('PEXPIRE', name, string.format('%.0f', keep))
  end
end
