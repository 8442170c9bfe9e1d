-- Removes the registry of the layout before `prefix:{registry}`, unless one of its workers is alive.
-- KEYS[1]  base of its keys, `{prefix:registry}`
-- Returns  1 if no worker of it is alive

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local newest = redis.call('ZREVRANGE', KEYS[1] .. ':workers', 0, 0, 'WITHSCORES')
if newest[2] and now - newest[2] < 60000 then return 0 end
redis.call('UNLINK', KEYS[1] .. ':workers', KEYS[1] .. ':about', KEYS[1] .. ':queues')
return 1
