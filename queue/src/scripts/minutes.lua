-- Counts of one queue per minute.
-- ARGV     minutes to look back, 1 to 1440
-- Returns  {this minute since 1970, then per hour that has counts: the flat hash of `<minute>d`, `<minute>f`}

local minute = math.floor(now / 60000000)
local out = {minute}
for hour = math.floor((minute - tonumber(ARGV[1]) + 1) / 60), math.floor(minute / 60) do
  local counts = redis.call('HGETALL', key('hour:' .. hour))
  if #counts > 0 then out[#out + 1] = counts end
end
return out
