-- Overrides the limit of one group, or removes the override.
-- ARGV     group, limit ('' removes it)

if ARGV[2] == '' then
  redis.call('HDEL', key('limits'), ARGV[1])
else
  redis.call('HSET', key('limits'), ARGV[1], ARGV[2])
end
if redis.call('EXISTS', key('lane:' .. ARGV[1])) == 1 then join_ring(ARGV[1]) end
finish()
return 1
