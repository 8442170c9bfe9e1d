-- Fetches ready jobs under a lease; groups take turns.
-- ARGV     worker, token of this call, jobs wanted, lease in µs, group limit, page,
--          slow after µs (0: no group is slow), slow jobs wanted, slow slots
-- Returns  {µs until the next scheduled job or -1, 1 if there is more to look at, rows}
--          row: id, arguments, attempts so far, max attempts, crashes, group, born, trace, 1 if slow
-- A repeated call with the same token returns the same jobs: the first response may have been lost.
--
-- A group is slow when one of its jobs has been running for longer than `slow after`, or the last one that ended was.
-- Its jobs are run in slow slots, which slow groups share evenly; so however many groups stall, the other slots are
-- left to those that do not.

local worker, token, want = ARGV[1], ARGV[2], tonumber(ARGV[3])
local until_, default_limit, page = num(now + tonumber(ARGV[4])), tonumber(ARGV[5]), tonumber(ARGV[6])
local slow_after, slow_want, slow_slots = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])

local FIELDS = {'tries', 'max', 'crashes', 'group', 'born', 'trace', 'args', 'state'}
local rows, ids = {}, {}
local function add_row(id, h, slow)
  ids[#ids + 1] = id
  rows[#rows + 1] = {id, h[7] or '', h[1], h[2], h[3], h[4], h[5], h[6] or '', slow and 1 or 0}
end

local last = key('fetched:' .. worker)
local before = redis.call('GET', last)
if before and string.sub(before, 1, #token + 1) == token .. '\n' then
  for id in string.gmatch(string.sub(before, #token + 2), '[^\n]+') do
    if redis.call('HGET', job_key(id), 'owner') == token then
      add_row(id, redis.call('HMGET', job_key(id), unpack(FIELDS)), false)
    end
  end
  return {-1, 1, rows}
end

if redis.call('HGET', key('meta'), 'paused') then return {-1, 0, rows} end

promote(page)

-- How many of `total` jobs each of these groups may start: one each in turn while they have any.
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

local function is_slow(group)
  if slow_after == 0 or group == '' then return false end
  local oldest = redis.call('ZRANGE', key('slots:' .. group), 0, 0, 'WITHSCORES')
  if oldest[2] and now - tonumber(oldest[2]) > slow_after then
    redis.call('ZADD', key('slow'), num(now), group)
    return true
  end
  return redis.call('ZSCORE', key('slow'), group) and true or false
end

local function slow_limit()
  return math.max(1, math.floor(slow_slots / (2 * math.max(1, redis.call('ZCARD', key('slow'))))))
end

local grouped, passed = {}, 0
local function start(group, n, slow)
  local started = 0
  local popped = redis.call('ZPOPMIN', key('lane:' .. group), n)
  for i = 1, #popped, 2 do
    local id = popped[i]
    local job = job_key(id)
    local h = redis.call('HMGET', job, unpack(FIELDS))
    if group ~= '' then grouped[#grouped + 1] = id end
    if h[8] == 'ready' then
      redis.call('HSET', job, 'state', 'running', 'owner', token, 'began', num(now))
      hold(id, group, until_, num(now))
      add_row(id, h, slow)
      started = started + 1
    end
  end
  return started
end

-- Each visit of a group either starts a job or removes the group from the ring, which it entered by an earlier push or
-- acknowledgement: so the cost is proportional to the jobs started.
local function serve(ring, wanted)
  while wanted > 0 and passed < page do
    local popped = redis.call('ZPOPMIN', key(ring), wanted)
    if #popped == 0 then break end
    local groups, total = {}, 0
    for i = 1, #popped, 2 do
      local name = popped[i]
      local slow = is_slow(name)
      local free = redis.call('ZCARD', key('lane:' .. name))
      if name ~= '' and free > 0 then
        local limit = tonumber(redis.call('HGET', key('limits'), name)) or default_limit
        if slow then limit = math.min(limit, slow_limit()) end
        free = math.min(free, limit - redis.call('ZCARD', key('slots:' .. name)))
      end
      if free > 0 and slow == (ring == 'slow_ring') then
        groups[#groups + 1] = {name = name, free = free, gives = 0}
        total = total + free
      else
        passed = passed + 1
        if free > 0 then
          redis.call('ZADD', key(slow and 'slow_ring' or 'ring'), 'NX', next_order(), name)
        end
      end
    end
    share(groups, math.min(wanted, total))
    for _, g in ipairs(groups) do
      local started = 0
      if g.gives > 0 then started = start(g.name, g.gives, ring == 'slow_ring') end
      wanted = wanted - started
      -- Fewer than counted were started because the lane had ids of jobs that are no longer ready.
      if g.free > g.gives or (started < g.gives and redis.call('EXISTS', key('lane:' .. g.name)) == 1) then
        redis.call('ZADD', key(ring), 'NX', next_order(), g.name)
      end
    end
  end
  return wanted
end

want = serve('ring', want)
slow_want = serve('slow_ring', slow_want)

if #grouped > 0 then
  for i = 1, #grouped, 500 do
    redis.call('ZREM', key('grouped'), unpack(grouped, i, math.min(i + 499, #grouped)))
  end
end
if #ids > 0 then
  redis.call('SET', last, token .. '\n' .. table.concat(ids, '\n'), 'EX', 600)
end
woke = false -- the jobs found are taken here; what remains is told by the last value below
local next_due = -1
local head = redis.call('ZRANGE', key('scheduled'), 0, 0, 'WITHSCORES')
if head[2] then next_due = math.max(0, tonumber(head[2]) - now) end
local more = want > 0 and redis.call('EXISTS', key('ring')) == 1
  or slow_want > 0 and redis.call('EXISTS', key('slow_ring')) == 1
finish()
return {next_due, more and 1 or 0, rows}
