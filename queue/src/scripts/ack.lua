-- Acknowledges runs: each job that the token still owns changes according to its verdict.
-- ARGV     done jobs to keep, dead jobs to keep, slow after µs (0: no group is slow),
--          then per job: id, group, token, verdict, error, delay in µs
--          verdict: done | failed (counts) | later (does not) | dead | released
-- Returns  ids whose token does not own them: nothing was changed for those

local stale = {}
local done, failed = 0, 0
local keep_done, slow_after = tonumber(ARGV[1]), tonumber(ARGV[3])

local function wait(id, group, again, delay)
  local due = now + delay
  if again then
    due = math.min(due, again)
    redis.call('HDEL', job_key(id), 'again')
  end
  ready_or_scheduled(id, group, due)
end

local gone = {}
local function finish_job(id, group, again)
  done = done + 1
  if again then
    start_over(id, group, again)
  elseif keep_done == 0 then
    gone[#gone + 1] = id
  else
    redis.call('HSET', job_key(id), 'state', 'done', 'owner', '', 'ended', num(now))
    redis.call('ZADD', key('done'), num(now), id)
  end
end

local function fail_job(id, group, again, tries, max, reason, delay)
  failed = failed + 1
  redis.call('HSET', job_key(id), 'tries', tries, 'error', reason)
  if delay and tries < max then
    wait(id, group, again, delay)
  elseif again then
    start_over(id, group, again)
  else
    die(id, reason)
  end
end

-- A group stays slow until one of its jobs is done in time. A job that was rescheduled in time proves nothing: it may
-- not have been due.
local function judge_pace(group, began, verdict)
  if slow_after == 0 or group == '' or verdict == 'released' then return end
  if now - began > slow_after then
    redis.call('ZADD', key('slow'), num(now), group)
  elseif verdict == 'done' then
    redis.call('ZREM', key('slow'), group)
  end
end

for i = 4, #ARGV, 6 do
  local id, group, token, verdict = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local reason, delay = ARGV[i + 4], tonumber(ARGV[i + 5])
  local job = job_key(id)
  local h = redis.call('HMGET', job, 'owner', 'group', 'tries', 'max', 'again', 'state', 'began')
  -- The hash was lost and recreated by a push, and the owner has not renewed its lease since.
  local restored = h[6] == 'running' and h[1] == ''
  if h[1] == token or restored then
    group = h[2]
    judge_pace(group, tonumber(h[7]) or now, verdict)
    local tries, again = tonumber(h[3]), tonumber(h[5])
    if verdict == 'done' then
      finish_job(id, group, again)
    elseif verdict == 'failed' then
      fail_job(id, group, again, tries + 1, tonumber(h[4]), reason, delay)
    elseif verdict == 'dead' then
      fail_job(id, group, again, tries + 1, 0, reason, nil)
    elseif verdict == 'later' then
      redis.call('HSET', job, 'error', reason)
      wait(id, group, again, delay)
    else
      redis.call('HDEL', job, 'again', 'began')
      make_ready_first(id, group)
    end
    release(id, group)
  else
    stale[#stale + 1] = id
    -- The hash was lost: release the slot anyway.
    if not h[6] then release(id, group) end
  end
end

forget(gone)
count('done', 'd', done)
count('failed', 'f', failed)
trim('done', keep_done)
trim('dead', tonumber(ARGV[2]))
finish()
return stale
