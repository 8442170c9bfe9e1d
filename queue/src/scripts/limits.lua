-- Overrides the limits of exactly these groups.
-- ARGV     per group: group, limit

local before = redis.call('HKEYS', key('limits'))
redis.call('DEL', key('limits'))
for i = 1, #ARGV, 2 do redis.call('HSET', key('limits'), ARGV[i], ARGV[i + 1]) end
-- A group whose limit was raised may have jobs to start.
for _, group in ipairs(before) do
  if redis.call('EXISTS', key('lane:' .. group)) == 1 then join_ring(group) end
end
finish()
return 1
