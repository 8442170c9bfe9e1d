-- Makes jobs ready as if they were new: one by id, or the oldest dead ones.
-- ARGV     limit ('' for one job), id
-- Returns  number of jobs made ready. One by id may be done, dead or scheduled.

local ids = {ARGV[2]}
if ARGV[1] ~= '' then ids = redis.call('ZRANGE', key('dead'), 0, tonumber(ARGV[1]) - 1) end
local n = 0
for _, id in ipairs(ids) do
  local h = redis.call('HMGET', job_key(id), 'state', 'group')
  local state = h[1]
  if state == 'done' or state == 'dead' or state == 'scheduled' then
    redis.call('ZREM', key(state), id)
    start_over(id, h[2], now)
    n = n + 1
  end
end
finish()
return n
