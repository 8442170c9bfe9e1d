-- One round of a worker's lease renewer: renews its leases, takes back the expired leases of
-- others, promotes what is due, and walks on through the queue's keys to repair what disagrees.
-- Bounded by the page.
-- ARGV     lease in µs, quiet time in µs, grace in µs, max crashes, page, dead jobs to keep,
--          then per held job: id, group, token
-- Returns  {ids that another worker owns now, number of leases taken back, number of repairs}

local lost = {}
local lease, page = tonumber(ARGV[1]), tonumber(ARGV[5])
local deadline = num(now + lease)
for i = 7, #ARGV, 3 do
  local id, group, token = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local job = job_key(id)
  local h = redis.call('HMGET', job, 'state', 'owner', 'began')
  if h[2] == token then
    hold(id, group, deadline, h[3] or num(now))
  elseif h[1] == 'running' and h[2] == '' then
    -- The hash was lost and made anew by a push.
    redis.call('HSET', job, 'owner', token)
    hold(id, group, deadline, h[3] or num(now))
  elseif h[1] then
    lost[#lost + 1] = id
  elseif redis.call('ZSCORE', key('lease'), lease_of(id, group)) then
    -- The hash was lost: the lease tells a push that the job runs.
    redis.call('ZADD', key('lease'), deadline, lease_of(id, group))
  end
  -- A job of which there is no lease either (FLUSHALL, deleted) may end in peace.
end

-- When no worker has come by for a while, Redis was away or asleep, and the owners of leases that
-- ran out meanwhile have not had a chance to renew them: wait for them a little.
local meta = redis.call('HMGET', key('meta'), 'tended', 'grace', 'walk', 'walked')
local grace = tonumber(meta[2]) or 0
if now - (tonumber(meta[1]) or 0) > tonumber(ARGV[2]) then
  grace = now + tonumber(ARGV[3])
  redis.call('HSET', key('meta'), 'grace', num(grace))
end
redis.call('HSET', key('meta'), 'tended', num(now))

local taken = 0
local function take_back(id, group)
  local job = job_key(id)
  local h = redis.call('HMGET', job, 'state', 'crashes')
  if h[1] == 'running' then
    taken = taken + 1
    local crashes = tonumber(h[2]) + 1
    redis.call('HSET', job, 'crashes', crashes)
    redis.call('HDEL', job, 'again') -- the next run starts after the push it stands for
    if crashes >= tonumber(ARGV[4]) then
      die(id, 'lost its worker ' .. crashes .. ' times')
      count('failed', 'f', 1)
    else
      make_ready_first(id, group)
    end
  end
  release(id, group)
end
if now >= grace then
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', key('lease'), '-inf', num(now), 'LIMIT', 0, page)) do
    redis.call('ZREM', key('lease'), member) -- also one that names no job
    take_back(parse_lease(member))
  end
  trim('dead', tonumber(ARGV[6]))
end
promote(page)
redis.call('ZREMRANGEBYSCORE', key('slow'), '-inf', num(now - 600000000))

-- The walk. Each phase goes through one index; `ids` has every job, so that a hash which is in no
-- index of its state is found, and the others put back what `ids` has lost.

local repairs = 0
local function count_repair(was_needed)
  if was_needed then repairs = repairs + 1 end
end

-- A slot is held by no job when its job does not run: its lease was released without it.
local function release_idle_slots(group)
  for _, id in ipairs(redis.call('ZRANGE', key('slots:' .. group), 0, 99)) do
    if redis.call('HGET', job_key(id), 'state') ~= 'running'
      and not redis.call('ZSCORE', key('lease'), lease_of(id, group)) then
      redis.call('ZREM', key('slots:' .. group), id)
      count_repair(true)
    end
  end
end

local visited = {}
local function visit_group(group)
  if visited[group] then return end
  visited[group] = true
  if group ~= '' then release_idle_slots(group) end
  rejoin(group)
end

local function visit_job(id)
  local h = redis.call('HMGET', job_key(id), 'state', 'group', 'due', 'began', 'ended')
  local state, group = h[1], h[2]
  if not state then
    redis.call('SREM', key('ids'), id)
  elseif state == 'ready' then
    count_repair(restore_ready(id, group))
    visit_group(group)
  elseif state == 'scheduled' then
    count_repair(restore_scheduled(id, tonumber(h[3])))
  elseif state == 'running' then
    count_repair(restore_running(id, group, h[4] or num(now), lease))
  else
    count_repair(redis.call('ZADD', key(state), 'NX', h[5] or num(now), id) == 1)
  end
end

-- Whether this id of an index belongs there.
local function belongs(id, state)
  local is = redis.call('HGET', job_key(id), 'state')
  if is then redis.call('SADD', key('ids'), id) end
  return is == state
end

local function visit_index(name, member)
  if name == 'lease' then
    -- Of a job without a hash it is the only trace, and ends when its owner does not renew it.
    local id, group = parse_lease(member)
    if belongs(id, 'running') then
      local began = redis.call('HGET', job_key(id), 'began') or num(now)
      if group ~= '' then redis.call('ZADD', key('slots:' .. group), 'NX', began, id) end
    end
  elseif name == 'grouped' or name == 'lane:' then
    if belongs(member, 'ready') then visit_job(member) else redis.call('ZREM', key(name), member) end
  elseif not belongs(member, name) then
    redis.call('ZREM', key(name), member)
  end
end

local PHASES = {'ids', 'lease', 'scheduled', 'grouped', 'lane:', 'done', 'dead'}
local phase, cursor = string.match(meta[3] or '', '^(%d+) (%d+)$')
phase, cursor = tonumber(phase) or 1, cursor or '0'

local function visit_page()
  local name = PHASES[phase]
  local scan = name == 'ids' and 'SSCAN' or 'ZSCAN'
  local reply = redis.call(scan, key(name), cursor, 'COUNT', page)
  local step = name == 'ids' and 1 or 2
  for i = 1, #reply[2], step do
    if name == 'ids' then visit_job(reply[2][i]) else visit_index(name, reply[2][i]) end
  end
  cursor = reply[1]
  if cursor == '0' then phase = phase % #PHASES + 1 end
  return #reply[2] / step
end

-- At most one page every half second, however many workers there are; all of it if it is small.
if now - (tonumber(meta[4]) or 0) >= 500000 then
  local seen, phases = 0, 0
  while seen < page and phases < #PHASES do
    seen = seen + visit_page()
    if cursor == '0' then phases = phases + 1 end
  end
  redis.call('HSET', key('meta'), 'walk', phase .. ' ' .. cursor, 'walked', num(now))
end
finish()
return {lost, taken, repairs}
