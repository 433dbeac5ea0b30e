-- How long what is merged lives: as long as the longer of the two. Stands before the scripts that merge. In milliseconds;
-- -1 is for ever, -2 that nothing is there.
local function longer(keep, left)
  -- An endless life is the longest, on either side.
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
-- `left`: what it has now, or -2 where it was not there before it was changed.
local function prolong(name, keep, left)
  if keep ~= -1 and left ~= -1 and left < keep then
    redis.call('PEXPIRE', name, string.format('%.0f', keep))
  end
end
