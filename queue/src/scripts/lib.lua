-- Shared by every script of a queue, and prepended to each of them.
--
-- KEYS[1]  base of the queue's keys, `prefix:{queue}`. All other names are built from it: they
--          share its hash tag and so its slot, and some (a job, a lane) are known only in here.
-- Times are microseconds by the clock of Redis: workers whose clocks differ must agree on when a lease expires, and a
-- job must not run early because a client's clock is ahead.
--
-- Any single key may be lost. A job's hash defines the state of the job; the sorted sets are indexes on that. A script
-- that takes an id from an index compares it with the hash before it acts, and `maintenance.lua` restores index entries
-- that the hashes show to be missing.

local base = KEYS[1]
local function key(name) return base .. ':' .. name end
local function job_key(id) return base .. ':job:' .. id end

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

-- Lua's own conversion loses digits of numbers this large.
local function num(n) return string.format('%.0f', n) end

-- A monotonic number close to `now`: keeps first in, first out within one microsecond and when Redis's clock is set
-- back.
local order
local function next_order()
  if not order then
    order = math.max(now, tonumber(redis.call('HGET', key('meta'), 'order')) or 0)
  end
  order = order + 1
  return num(order)
end

-- Slow groups have a ring of their own, because they use other slots (see `fetch.lua`).
local woke = false
local joined = {}
local function join_ring(group)
  if joined[group] then return end
  joined[group] = true
  local ring = redis.call('ZSCORE', key('slow'), group) and 'slow_ring' or 'ring'
  redis.call('ZADD', key(ring), 'NX', next_order(), group)
  woke = true
end

local function into_lane(id, group, at)
  redis.call('ZADD', key('lane:' .. group), at, id)
  if group ~= '' then redis.call('ZADD', key('grouped'), at, id) end
  join_ring(group)
end

local function make_ready(id, group)
  redis.call('HSET', job_key(id), 'state', 'ready', 'owner', '')
  into_lane(id, group, next_order())
end

-- Before all others of its lane: for jobs that had their turn and lost it.
local function make_ready_first(id, group)
  redis.call('HSET', job_key(id), 'state', 'ready', 'owner', '')
  local head = redis.call('ZRANGE', key('lane:' .. group), 0, 0, 'WITHSCORES')
  local at = head[2] and math.min(now, tonumber(head[2]) - 1) or now
  into_lane(id, group, num(at))
end

local function schedule(id, due)
  redis.call('HSET', job_key(id), 'state', 'scheduled', 'owner', '', 'due', num(due))
  redis.call('ZADD', key('scheduled'), num(due), id)
  -- Idle workers sleep until the first scheduled job: wake them when this one is earlier.
  if redis.call('ZRANGE', key('scheduled'), 0, 0)[1] == id then woke = true end
end

local function ready_or_scheduled(id, group, due)
  if due > now then schedule(id, due) else make_ready(id, group) end
end

-- A lease names the group too, so that the slot can be released even if the job's hash is lost.
local function lease_of(id, group) return group .. '\n' .. id end
local function parse_lease(member)
  local at = string.find(member, '\n', 1, true)
  if not at then return member, '' end
  return string.sub(member, at + 1), string.sub(member, 1, at - 1)
end

local function hold(id, group, until_, began)
  redis.call('ZADD', key('lease'), until_, lease_of(id, group))
  if group ~= '' then redis.call('ZADD', key('slots:' .. group), began, id) end
end

-- Ends the lease and releases the slot of a job.
local function release(id, group)
  redis.call('ZREM', key('lease'), lease_of(id, group))
  if group ~= '' then
    redis.call('ZREM', key('slots:' .. group), id)
    if redis.call('EXISTS', key('lane:' .. group)) == 1 then join_ring(group) end
  end
end

local function promote(page)
  local ids = redis.call('ZRANGEBYSCORE', key('scheduled'), '-inf', num(now), 'LIMIT', 0, page)
  for _, id in ipairs(ids) do
    redis.call('ZREM', key('scheduled'), id)
    local h = redis.call('HMGET', job_key(id), 'state', 'group')
    if h[1] == 'scheduled' then make_ready(id, h[2]) end
  end
  return #ids
end

-- Resets a job: after `done` with a push in between, or when it is run again manually.
local function start_over(id, group, due)
  redis.call('HSET', job_key(id), 'tries', 0, 'crashes', 0, 'born', num(now))
  redis.call('HDEL', job_key(id), 'again', 'ended')
  ready_or_scheduled(id, group, due)
end

local function forget(ids)
  if #ids == 0 then return end
  local names = {}
  for i, id in ipairs(ids) do names[i] = job_key(id) end
  redis.call('DEL', unpack(names))
  redis.call('SREM', key('ids'), unpack(ids))
end

-- Keeps the newest `keep` of a finished set; at most 500 are deleted at once.
local function trim(name, keep)
  local over = redis.call('ZCARD', key(name)) - keep
  if over <= 0 then return end
  local popped = redis.call('ZPOPMIN', key(name), math.min(over, 500))
  local ids = {}
  for i = 1, #popped, 2 do
    if redis.call('HGET', job_key(popped[i]), 'state') == name then ids[#ids + 1] = popped[i] end
  end
  forget(ids)
end

local function die(id, reason)
  redis.call('HSET', job_key(id), 'state', 'dead', 'owner', '', 'error', reason, 'ended', num(now))
  redis.call('HDEL', job_key(id), 'again')
  redis.call('ZADD', key('dead'), num(now), id)
end

local function count(name, letter, n)
  if n == 0 then return end
  redis.call('HINCRBY', key('meta'), name, n)
  local minute = math.floor(now / 60000000)
  local hour = key('hour:' .. math.floor(minute / 60))
  if redis.call('HINCRBY', hour, minute .. letter, n) == n then
    redis.call('EXPIRE', hour, 90000)
  end
end

-- Removes a job from every index, whatever its state. Returns its group, or nil if unknown.
local function take_out(id)
  local h = redis.call('HMGET', job_key(id), 'state', 'group')
  local state, group = h[1], h[2]
  if not state then return nil end
  if state == 'ready' then
    redis.call('ZREM', key('lane:' .. group), id)
    redis.call('ZREM', key('grouped'), id)
  elseif state == 'running' then
    release(id, group)
  else
    redis.call('ZREM', key(state), id)
  end
  return group, state
end

-- The following functions restore lost index entries.

local function rejoin(group)
  if not redis.call('ZSCORE', key('ring'), group) and not redis.call('ZSCORE', key('slow_ring'), group) then
    join_ring(group)
  end
end

local function restore_ready(id, group)
  local at = redis.call('ZSCORE', key('lane:' .. group), id)
  if not at then
    into_lane(id, group, next_order())
    return true
  end
  return group ~= '' and redis.call('ZADD', key('grouped'), 'NX', at, id) == 1
end

local function restore_scheduled(id, due)
  if redis.call('ZSCORE', key('scheduled'), id) then return false end
  schedule(id, due)
  return true
end

-- If the owner is alive, it renews the lease before it expires.
local function restore_running(id, group, began, lease)
  if redis.call('ZSCORE', key('lease'), lease_of(id, group)) then
    return group ~= '' and redis.call('ZADD', key('slots:' .. group), 'NX', began, id) == 1
  end
  hold(id, group, num(now + lease), began)
  return true
end

-- Every script that changes something ends with this.
local function finish()
  if order then redis.call('HSET', key('meta'), 'order', num(order)) end
  if woke then redis.call('PUBLISH', key('wake'), '') end
end
