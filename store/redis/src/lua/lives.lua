-- How long a merged entry lives: the longer of the two times. Prepended to the merge scripts. In milliseconds; -1 is
-- forever, -2 means that there is no entry.
local function longer(keep, left)
  -- Forever is the longest, on either side.
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
-- `left`: its current time, or -2 if it did not exist before the change.
local function prolong(name, keep, left)
  if keep ~= -1 and left ~= -1 and left < keep then
    redis.call('PEXPIRE', name, string.format('%.0f', keep))
  end
end
