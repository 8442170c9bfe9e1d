-- Inspects jobs: a page of one state, or one by id.
-- ARGV     state ('' to look up an id), offset, limit | '', id
-- Returns  rows: id, state, arguments, {attempts, max attempts, crashes}, {born, due, began, ended},
--          {group, owner, error, trace}; what is missing is ''; an unknown id gives no row

local FIELDS = {
  'state', 'tries', 'max', 'crashes', 'born', 'due', 'began', 'ended', 'group', 'owner', 'error', 'trace', 'args',
}
local ids
if ARGV[1] == '' then
  ids = {ARGV[2]}
else
  local from, limit = tonumber(ARGV[2]), tonumber(ARGV[3])
  local upto = from + limit - 1
  if ARGV[1] == 'ready' then
    local plain = redis.call('ZCARD', key('lane:'))
    ids = redis.call('ZRANGE', key('lane:'), from, upto)
    if #ids < limit then
      local start = math.max(0, from - plain)
      for _, id in ipairs(redis.call('ZRANGE', key('grouped'), start, start + limit - #ids - 1)) do
        ids[#ids + 1] = id
      end
    end
  elseif ARGV[1] == 'scheduled' then
    ids = redis.call('ZRANGE', key('scheduled'), from, upto)
  elseif ARGV[1] == 'running' then
    ids = redis.call('ZRANGE', key('lease'), from, upto)
    for i, member in ipairs(ids) do ids[i] = parse_lease(member) end
  else
    ids = redis.call('ZREVRANGE', key(ARGV[1]), from, upto)
  end
end

local rows = {}
for _, id in ipairs(ids) do
  local h = redis.call('HMGET', job_key(id), unpack(FIELDS))
  if h[1] then
    for i = 1, #FIELDS do h[i] = h[i] or '' end
    rows[#rows + 1] = {
      id, h[1], h[13],
      {h[2], h[3], h[4]}, {h[5], h[6], h[7], h[8]}, {h[9], h[10], h[11], h[12]},
    }
  end
end
return rows
