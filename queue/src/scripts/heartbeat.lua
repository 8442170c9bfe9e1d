-- Records the heartbeat of a worker.
-- KEYS[1]  base of the registry's keys, `prefix:{registry}`
-- ARGV     worker, what it is as JSON ('' takes it out), queue
-- Workers without a heartbeat for ten minutes are removed, at most 100 at a time.

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local workers, about = KEYS[1] .. ':workers', KEYS[1] .. ':about'
if ARGV[2] == '' then
  redis.call('ZREM', workers, ARGV[1])
  redis.call('HDEL', about, ARGV[1])
else
  redis.call('ZADD', workers, now, ARGV[1])
  redis.call('HSET', about, ARGV[1], ARGV[2])
  redis.call('SADD', KEYS[1] .. ':queues', ARGV[3])
end
local silent = redis.call('ZRANGEBYSCORE', workers, '-inf', now - 600000, 'LIMIT', 0, 100)
if #silent > 0 then
  redis.call('ZREM', workers, unpack(silent))
  redis.call('HDEL', about, unpack(silent))
end
return 1
