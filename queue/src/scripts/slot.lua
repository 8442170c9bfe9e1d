-- Acquires, renews or releases a slot under a lease. KEYS: base of the limits.
-- ARGV: subject, holder, most (0 releases), lease in milliseconds. Returns whether the holder has a slot.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local key = KEYS[1] .. ':slots:' .. ARGV[1]
redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
local most = tonumber(ARGV[3])
if most == 0 then
    redis.call('ZREM', key, ARGV[2])
    return 0
end
if not redis.call('ZSCORE', key, ARGV[2]) and redis.call('ZCARD', key) >= most then
    return 0
end
redis.call('ZADD', key, now + ARGV[4], ARGV[2])
-- As long as the longest lease, since holders may have requested different ones.
local last = redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')
redis.call('PEXPIREAT', key, last[2])
return 1
