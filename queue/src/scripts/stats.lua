-- Statistics of one queue, at constant cost.
-- Returns  {ready, scheduled, running, dead, kept done, done total, failed total, µs the oldest ready
--          job has waited or -1, 1 if paused, µs of the next scheduled job or -1}

local function card(name) return redis.call('ZCARD', key(name)) end
local function head(name)
  return tonumber(redis.call('ZRANGE', key(name), 0, 0, 'WITHSCORES')[2])
end

local oldest
for _, name in ipairs({'lane:', 'grouped'}) do
  local at = head(name)
  if at and (not oldest or at < oldest) then oldest = at end
end
local meta = redis.call('HMGET', key('meta'), 'done', 'failed', 'paused')
return {
  card('lane:') + card('grouped'), card('scheduled'), card('lease'), card('dead'), card('done'),
  tonumber(meta[1]) or 0, tonumber(meta[2]) or 0,
  oldest and math.max(0, now - oldest) or -1,
  meta[3] and 1 or 0,
  head('scheduled') or -1,
}
