-- Adds to a sum that expires. KEYS: base of the limits. ARGV: name, amount, seconds kept.
local key = KEYS[1] .. ':sum:' .. ARGV[1]
local sum = redis.call('INCRBY', key, ARGV[2])
redis.call('EXPIRE', key, ARGV[3])
return sum
