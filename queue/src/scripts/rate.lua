-- Rate limit by the generic cell rate algorithm (GCRA): the stored value is the theoretical arrival time.
-- KEYS: base of the limits. ARGV: subject, microseconds per unit, burst.
-- Returns: allowed, units left, microseconds to wait, microseconds until the full burst is available.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local key = KEYS[1] .. ':rate:' .. ARGV[1]
local period, burst = tonumber(ARGV[2]), tonumber(ARGV[3])
local even = math.max(tonumber(redis.call('GET', key) or 0), now)
local after = even + period
local wait = after - period * burst - now
if wait > 0 then
    return {0, 0, math.ceil(wait), math.ceil(even - now)}
end
redis.call('SET', key, string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000) + 1)
return {1, math.floor((period * burst - (after - now)) / period), 0, math.ceil(after - now)}
