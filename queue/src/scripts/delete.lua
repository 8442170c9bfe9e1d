-- Deletes jobs: one by id, or a page of one state. A running handler continues; its outcome is ignored.
-- ARGV     state ('' for one job), limit | '', id
-- Returns  number of jobs deleted

local ids = {ARGV[2]}
if ARGV[1] ~= '' then
  local upto = tonumber(ARGV[2]) - 1
  if ARGV[1] == 'ready' then
    ids = redis.call('ZRANGE', key('lane:'), 0, upto)
    if #ids == 0 then ids = redis.call('ZRANGE', key('grouped'), 0, upto) end
  elseif ARGV[1] == 'running' then
    ids = redis.call('ZRANGE', key('lease'), 0, upto)
    for i, member in ipairs(ids) do ids[i] = parse_lease(member) end
  else
    ids = redis.call('ZRANGE', key(ARGV[1]), 0, upto)
  end
end
local n = 0
for _, id in ipairs(ids) do
  if take_out(id) then n = n + 1 end
end
forget(ids)
finish()
return n
