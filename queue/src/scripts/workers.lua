-- Returns the workers of an installation, newest heartbeat first, at most 1,000.
-- KEYS[1]  base of the registry's keys, `prefix:{registry}`
-- Returns  rows: worker, ms of its last beat, what it is as JSON

local rows = {}
local names = redis.call('ZREVRANGE', KEYS[1] .. ':workers', 0, 999, 'WITHSCORES')
for i = 1, #names, 2 do
  local about = redis.call('HGET', KEYS[1] .. ':about', names[i])
  if about then rows[#rows + 1] = {names[i], names[i + 1], about} end
end
return rows
