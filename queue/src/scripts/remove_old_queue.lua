-- Removes a page of a queue of the layout before `prefix:{queue}`; when no job is left, the rest of its keys.
-- KEYS[1]  base of its keys, `{prefix:queue}`
-- Returns  number of jobs removed; 0 when all are

local function key(name) return KEYS[1] .. ':' .. name end
local page = redis.call('HSCAN', key('args'), 0, 'COUNT', 200)[2]
for i = 1, #page, 2 do
  local job = key('job:' .. page[i])
  redis.call('UNLINK', key('lane:' .. (redis.call('HGET', job, 'group') or '')), job)
  redis.call('HDEL', key('args'), page[i])
end
if #page == 0 then
  for _, name in ipairs({'lane:', 'grouped', 'ring', 'slots', 'limits', 'scheduled', 'lease', 'done', 'dead', 'meta'}) do
    redis.call('UNLINK', key(name))
  end
end
return #page / 2
