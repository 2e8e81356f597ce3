-- The health of a MeshCertificate in Argo CD. docs/gitops.md says where it belongs.
local function answer(status, message)
  return { status = status, message = message }
end

if obj.metadata.deletionTimestamp ~= nil then
  return answer("Progressing", "It is being deleted; kubectl describe says what the deletion waits for.")
end

local status = obj.status or {}
local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end
local function is(type, value)
  return conditions[type] ~= nil and conditions[type].status == value
end

local observed = status.observedGeneration
if conditions.Ready == nil or observed == nil or observed < (obj.metadata.generation or 0) then
  return answer("Progressing", "The agent has not processed this spec yet.")
end
if is("Stalled", "True") then
  return answer("Degraded", conditions.Stalled.message)
end
if obj.spec ~= nil and obj.spec.paused == true then
  return answer("Suspended", conditions.Ready.message)
end
if is("Ready", "False") and conditions.Ready.reason == "Expired" then
  return answer("Degraded", conditions.Ready.message)
end
if is("Reconciling", "True") then
  return answer("Progressing", conditions.Reconciling.message)
end
if not is("Ready", "True") then
  return answer("Progressing", conditions.Ready.message)
end
-- The certificate is about to expire, and nothing newer has come.
if is("Degraded", "True") and conditions.Degraded.reason == "EmergencyBand" then
  return answer("Degraded", conditions.Degraded.message)
end
return answer("Healthy", conditions.Ready.message)
