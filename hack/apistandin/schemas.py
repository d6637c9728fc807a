"""The types of the objects that this server has. See `hack.apistandin.schema` for where they are from.

A pod is described down to the lists that are owned by key; what is inside of its containers and volumes is deduced.
"""

from __future__ import annotations

from hack.apistandin.schema import (
    ANY,
    BOOLEAN,
    INTEGER,
    MICROTIME,
    QUANTITY,
    STRING,
    TIME,
    atomic_list,
    atomic_struct,
    keep,
    map_list,
    map_of,
    pointer,
    root,
    set_list,
    struct,
)

TAINT = struct(key=keep(STRING), value=STRING, effect=keep(STRING), timeAdded=pointer(TIME))

# metav1.Time is a struct, which omitempty does not leave out: an unset one is shown as null.
_NODE_CONDITION = struct(
    type=keep(STRING),
    status=keep(STRING),
    lastHeartbeatTime=keep(TIME),
    lastTransitionTime=keep(TIME),
    reason=STRING,
    message=STRING,
)
_SYSTEM_INFO = struct(
    **dict.fromkeys(
        (
            "machineID",
            "systemUUID",
            "bootID",
            "kernelVersion",
            "osImage",
            "containerRuntimeVersion",
            "kubeletVersion",
            "kubeProxyVersion",
            "operatingSystem",
            "architecture",
        ),
        keep(STRING),
    ),
    swap=pointer(ANY),
)

NODE = root(
    spec=keep(
        struct(
            podCIDR=STRING,
            podCIDRs=set_list(STRING),
            providerID=STRING,
            unschedulable=BOOLEAN,
            # No patchMergeKey: strategic merge replaces the taints too.
            taints=atomic_list(TAINT),
            configSource=pointer(ANY),
            externalID=STRING,
        )
    ),
    status=keep(
        struct(
            capacity=map_of(QUANTITY),
            allocatable=map_of(QUANTITY),
            phase=STRING,
            conditions=map_list(_NODE_CONDITION, "type"),
            addresses=map_list(struct(type=keep(STRING), address=keep(STRING)), "type"),
            daemonEndpoints=keep(struct(kubeletEndpoint=keep(struct(Port=keep(INTEGER))))),
            nodeInfo=keep(_SYSTEM_INFO),
            images=atomic_list(ANY),
            volumesInUse=atomic_list(STRING),
            volumesAttached=atomic_list(ANY),
            config=pointer(ANY),
            runtimeHandlers=atomic_list(ANY),
            features=pointer(ANY),
            declaredFeatures=atomic_list(STRING),
        )
    ),
)

LEASE = root(
    spec=keep(
        struct(
            holderIdentity=pointer(STRING),
            leaseDurationSeconds=pointer(INTEGER),
            acquireTime=pointer(MICROTIME),
            renewTime=pointer(MICROTIME),
            leaseTransitions=pointer(INTEGER),
            strategy=pointer(STRING),
            preferredHolder=pointer(STRING),
        )
    )
)

CONFIG_MAP = root(immutable=pointer(BOOLEAN), data=map_of(STRING), binaryData=map_of(STRING))

NAMESPACE = root(
    spec=keep(struct(finalizers=atomic_list(STRING))),
    status=keep(
        struct(
            phase=STRING,
            conditions=map_list(
                struct(type=keep(STRING), status=keep(STRING), lastTransitionTime=TIME, reason=STRING, message=STRING),
                "type",
            ),
        )
    ),
)

RUNTIME_CLASS = root(
    handler=keep(STRING),
    overhead=pointer(struct(podFixed=map_of(QUANTITY))),
    scheduling=pointer(struct(nodeSelector=map_of(STRING, atomic=True), tolerations=atomic_list(ANY))),
)

# ObjectReference is +structType=atomic: it is owned whole.
_REFERENCE = atomic_struct(
    kind=STRING,
    namespace=STRING,
    name=STRING,
    uid=STRING,
    apiVersion=STRING,
    resourceVersion=STRING,
    fieldPath=STRING,
)
_SOURCE = struct(component=STRING, host=STRING)

EVENT_CORE = root(
    involvedObject=keep(_REFERENCE),
    reason=STRING,
    message=STRING,
    source=keep(_SOURCE),
    firstTimestamp=keep(TIME),
    lastTimestamp=keep(TIME),
    count=INTEGER,
    type=STRING,
    eventTime=keep(MICROTIME),
    series=pointer(struct(count=INTEGER, lastObservedTime=keep(MICROTIME))),
    action=STRING,
    related=pointer(_REFERENCE),
    reportingComponent=keep(STRING),
    reportingInstance=keep(STRING),
)

EVENT = root(
    eventTime=keep(MICROTIME),
    series=pointer(struct(count=keep(INTEGER), lastObservedTime=keep(MICROTIME))),
    reportingController=STRING,
    reportingInstance=STRING,
    action=STRING,
    reason=STRING,
    regarding=keep(_REFERENCE),
    related=pointer(_REFERENCE),
    note=STRING,
    type=STRING,
    deprecatedSource=keep(_SOURCE),
    deprecatedFirstTimestamp=keep(TIME),
    deprecatedLastTimestamp=keep(TIME),
    deprecatedCount=INTEGER,
)

_CONTAINER = struct(
    name=keep(STRING),
    image=STRING,
    command=atomic_list(STRING),
    args=atomic_list(STRING),
    workingDir=STRING,
    ports=map_list(ANY, "containerPort", "protocol"),
    envFrom=atomic_list(ANY),
    env=map_list(ANY, "name"),
    resources=keep(ANY),
    resizePolicy=atomic_list(ANY),
    restartPolicy=pointer(STRING),
    restartPolicyRules=atomic_list(ANY),
    volumeMounts=map_list(ANY, "mountPath"),
    volumeDevices=map_list(ANY, "devicePath"),
    livenessProbe=pointer(ANY),
    readinessProbe=pointer(ANY),
    startupProbe=pointer(ANY),
    lifecycle=pointer(ANY),
    terminationMessagePath=STRING,
    terminationMessagePolicy=STRING,
    imagePullPolicy=STRING,
    securityContext=pointer(ANY),
    stdin=BOOLEAN,
    stdinOnce=BOOLEAN,
    tty=BOOLEAN,
)

POD = root(
    spec=keep(
        struct(
            volumes=map_list(ANY, "name"),
            initContainers=map_list(_CONTAINER, "name"),
            containers=keep(map_list(_CONTAINER, "name")),
            ephemeralContainers=map_list(ANY, "name"),
            restartPolicy=STRING,
            terminationGracePeriodSeconds=pointer(INTEGER),
            activeDeadlineSeconds=pointer(INTEGER),
            dnsPolicy=STRING,
            nodeSelector=map_of(STRING, atomic=True),
            serviceAccountName=STRING,
            serviceAccount=STRING,
            automountServiceAccountToken=pointer(BOOLEAN),
            nodeName=STRING,
            hostNetwork=BOOLEAN,
            hostPID=BOOLEAN,
            hostIPC=BOOLEAN,
            shareProcessNamespace=pointer(BOOLEAN),
            securityContext=pointer(ANY),
            imagePullSecrets=map_list(ANY, "name"),
            hostname=STRING,
            subdomain=STRING,
            affinity=pointer(ANY),
            schedulerName=STRING,
            tolerations=atomic_list(ANY),
            hostAliases=map_list(ANY, "ip"),
            priorityClassName=STRING,
            priority=pointer(INTEGER),
            dnsConfig=pointer(ANY),
            readinessGates=atomic_list(ANY),
            runtimeClassName=pointer(STRING),
            enableServiceLinks=pointer(BOOLEAN),
            preemptionPolicy=pointer(STRING),
            overhead=map_of(QUANTITY),
            topologySpreadConstraints=map_list(ANY, "topologyKey", "whenUnsatisfiable"),
            setHostnameAsFQDN=pointer(BOOLEAN),
            os=pointer(ANY),
            hostUsers=pointer(BOOLEAN),
            schedulingGates=map_list(ANY, "name"),
            resourceClaims=map_list(ANY, "name"),
            resources=pointer(ANY),
            hostnameOverride=pointer(STRING),
        )
    ),
    status=keep(
        struct(
            observedGeneration=INTEGER,
            phase=STRING,
            conditions=map_list(
                struct(
                    type=keep(STRING),
                    observedGeneration=INTEGER,
                    status=keep(STRING),
                    lastProbeTime=keep(TIME),
                    lastTransitionTime=keep(TIME),
                    reason=STRING,
                    message=STRING,
                ),
                "type",
            ),
            message=STRING,
            reason=STRING,
            nominatedNodeName=STRING,
            hostIP=STRING,
            hostIPs=atomic_list(ANY, merge_key="ip"),
            podIP=STRING,
            podIPs=map_list(struct(ip=keep(STRING)), "ip"),
            startTime=pointer(TIME),
            initContainerStatuses=atomic_list(ANY),
            containerStatuses=atomic_list(ANY),
            qosClass=STRING,
            ephemeralContainerStatuses=atomic_list(ANY),
            resize=STRING,
            resourceClaimStatuses=map_list(ANY, "name"),
            extendedResourceClaimStatus=pointer(ANY),
            allocatedResources=map_of(QUANTITY),
            resources=pointer(ANY),
        )
    ),
)
