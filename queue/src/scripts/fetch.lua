-- Takes ready jobs under a lease, group by group in turn.
-- ARGV     worker, token of this call, jobs wanted, lease in µs, group limit, page
-- Returns  {µs until the next scheduled job or -1, 1 if there is more to look at, rows}
--          row: id, arguments, attempts so far, max attempts, crashes, group, born, trace
-- A repeated call with the same token returns the same jobs: the first answer may be lost.

local worker, token, want = ARGV[1], ARGV[2], tonumber(ARGV[3])
local until_, default_limit, page = num(now + tonumber(ARGV[4])), tonumber(ARGV[5]), tonumber(ARGV[6])

local rows, ids = {}, {}
local function add_row(id, h)
  ids[#ids + 1] = id
  rows[#rows + 1] = {id, '', h[1], h[2], h[3], h[4], h[5], h[6] or ''}
end
local FIELDS = {'tries', 'max', 'crashes', 'group', 'born', 'trace'}

local function with_arguments()
  if #ids == 0 then return rows end
  local args = redis.call('HMGET', key('args'), unpack(ids))
  for i, row in ipairs(rows) do row[2] = args[i] or '' end
  return rows
end

local last = key('fetched:' .. worker)
local before = redis.call('GET', last)
if before and string.sub(before, 1, #token + 1) == token .. '\n' then
  for id in string.gmatch(string.sub(before, #token + 2), '[^\n]+') do
    if redis.call('HGET', job_key(id), 'owner') == token then
      add_row(id, redis.call('HMGET', job_key(id), unpack(FIELDS)))
    end
  end
  return {-1, 1, with_arguments()}
end

if redis.call('HGET', key('meta'), 'paused') then return {-1, 0, rows} end

promote(page)

-- How many of `total` jobs each of these groups gives: one each in turn while they have any.
local function share(groups, total)
  while total > 0 do
    for _, g in ipairs(groups) do
      if total > 0 and g.gives < g.free then
        g.gives = g.gives + 1
        total = total - 1
      end
    end
  end
end

local leases, grouped, passed = {}, {}, 0
local function start(group, n)
  local started = 0
  local popped = redis.call('ZPOPMIN', key('lane:' .. group), n)
  for i = 1, #popped, 2 do
    local id = popped[i]
    local job = job_key(id)
    local h = redis.call('HMGET', job, unpack(FIELDS))
    if group ~= '' then grouped[#grouped + 1] = id end
    if h[1] then
      redis.call('HSET', job, 'state', 'running', 'owner', token, 'began', num(now))
      leases[#leases + 1] = until_
      leases[#leases + 1] = id
      add_row(id, h)
      started = started + 1
    end
  end
  if group ~= '' and started > 0 then redis.call('HINCRBY', key('slots'), group, started) end
  return started
end

-- Every look at a group either serves a job or drops the group from the ring, which took an
-- earlier push or acknowledgement to enter: the cost is that of the jobs served.
while want > 0 and passed < page do
  local popped = redis.call('ZPOPMIN', key('ring'), want)
  if #popped == 0 then break end
  local groups, total = {}, 0
  for i = 1, #popped, 2 do
    local name = popped[i]
    local free = redis.call('ZCARD', key('lane:' .. name))
    if name ~= '' and free > 0 then
      local limit = tonumber(redis.call('HGET', key('limits'), name)) or default_limit
      free = math.min(free, limit - (tonumber(redis.call('HGET', key('slots'), name)) or 0))
    end
    if free > 0 then
      groups[#groups + 1] = {name = name, free = free, gives = 0}
      total = total + free
    else
      passed = passed + 1
    end
  end
  share(groups, math.min(want, total))
  for _, g in ipairs(groups) do
    if g.gives > 0 then want = want - start(g.name, g.gives) end
    if g.free > g.gives then redis.call('ZADD', key('ring'), 'NX', next_order(), g.name) end
  end
end

if #leases > 0 then
  redis.call('ZADD', key('lease'), unpack(leases))
  if #grouped > 0 then redis.call('ZREM', key('grouped'), unpack(grouped)) end
  redis.call('SET', last, token .. '\n' .. table.concat(ids, '\n'), 'EX', 600)
end
woke = false -- the jobs found are taken here; what remains is told by the last value below
local next_due = -1
local head = redis.call('ZRANGE', key('scheduled'), 0, 0, 'WITHSCORES')
if head[2] then next_due = math.max(0, tonumber(head[2]) - now) end
local more = (want > 0 and redis.call('EXISTS', key('ring')) == 1) and 1 or 0
finish()
return {next_due, more, with_arguments()}
